#!/bin/bash
# Makes the root of a node and becomes its systemd. Runs in namespaces of its own, as root: <name> <folder> <folder of this script>
set -euo pipefail
name=$1 folder=$2 here=$3

mkdir "$folder/machine"
mount -t tmpfs node "$folder/machine"
mkdir "$folder"/machine/{upper,work,root}
root=$folder/machine/root
mount -t overlay overlay -o "lowerdir=/,upperdir=$folder/machine/upper,workdir=$folder/machine/work" "$root"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
# As this machine has them: control groups of version 2 alone, or beside those of version 1.
if [ -e /sys/fs/cgroup/cgroup.procs ]; then
  mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
else
  mount -t tmpfs tmpfs "$root/sys/fs/cgroup"
  mkdir "$root"/sys/fs/cgroup/{systemd,unified}
  mount -t cgroup cgroup "$root/sys/fs/cgroup/systemd" -o none,name=systemd
  mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup/unified"
fi
mount -t tmpfs tmpfs "$root/dev"
mkdir "$root"/dev/{pts,shm}
for device in null zero full random urandom tty; do
  touch "$root/dev/$device"
  mount --bind "/dev/$device" "$root/dev/$device"
done
mount -t devpts devpts "$root/dev/pts" -o newinstance,ptmxmode=0666
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"

# What the kernel has for all of this machine is left alone.
for unit in systemd-sysctl systemd-modules-load systemd-remount-fs systemd-timesyncd systemd-update-utmp; do
  ln -sf /dev/null "$root/etc/systemd/system/$unit.service"
done
ln -sf /dev/null "$root/etc/systemd/system/timers.target"
tr -d - </proc/sys/kernel/random/uuid >"$root/etc/machine-id"
hostname "ip-${name}"
cat >"$root/etc/systemd/system/lab.target" <<'UNIT'
[Unit]
Description=A node of a test
Requires=basic.target
After=basic.target
AllowIsolate=yes
UNIT

# What Amazon Linux has and this machine has not, and the calls of the user data that need a disk.
mkdir -p "$root/opt/lab/bin" "$root/opt/aws/amazon-cloudwatch-agent/bin"
cp "$here/node_aws.py" "$root/opt/lab/bin/aws"
stub() { printf '#!/bin/bash\n%s\n' "$2" >"$root/opt/lab/bin/$1"; }
stub hostnamectl "hostname \"\$2\""
stub chattr ""
stub blkid "exit 2"
stub mkfs.xfs ""
stub udevadm ""
stub dnf ""
# The volume is in memory.
stub mount "exec /bin/mount -t tmpfs -o noatime,nodev,nosuid,noexec data /var/lib/nats"
printf '#!/bin/bash\n' >"$root/opt/aws/amazon-cloudwatch-agent/bin/amazon-cloudwatch-agent-ctl"
chmod 755 "$root"/opt/lab/bin/* "$root/opt/aws/amazon-cloudwatch-agent/bin/amazon-cloudwatch-agent-ctl"
printf '[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n[Install]\nWantedBy=lab.target\n' \
  >"$root/etc/systemd/system/amazon-ssm-agent.service"
mkdir -p "$root/dev/disk/by-id"
mknod "$root/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_vol0" b 7 200
rm -rf "$root"/{var/lib,etc,opt}/nats "$root/var/log/nats"
sed -i '/nats/d' "$root/etc/passwd" "$root/etc/group" "$root/etc/fstab"

mkdir -p "$root/old"
cd "$root"
pivot_root . old
umount -l /old
exec env -i container=lab PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system --unit=lab.target

//! The files of a cluster in folders with unusual names, read by a real nats-server.

use super::*;
use crate::manifest::fixture::Tree;
use crate::nats::locate::locate;

fn nats_server() -> NatsServer {
    locate(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..")).unwrap()
}

/// A deployment in a state directory of this name, and then a plan with a temporary directory of this name.
#[track_caller]
fn check(name: &str) {
    let home = tempfile::tempdir().unwrap();
    let (dir, temporary) = (home.path().join("state").join(name), home.path().join(name));
    create_private(&temporary).unwrap();
    let (manifests, server) = (Tree::valid().load().unwrap(), nats_server());
    let deployed = ClusterFiles::prepare(&manifests, &dir, &server).unwrap();
    for node in deployed.nodes.keys() {
        // The server reads the certificates and keys that the file names.
        deployed.write_config(node, &server).unwrap();
    }
    let planned = ClusterFiles::preview_in(&temporary, &manifests, &dir, &server).unwrap();
    for (node, files) in &planned.nodes {
        assert_eq!(files.config, deployed.nodes[node].config, "{name}");
    }
    assert_eq!(planned.desired(), deployed.desired(), "{name}");
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0, "{name}");
}

#[test]
fn a_server_reads_its_files_in_a_folder_of_any_name_and_a_plan_finds_them_unchanged() {
    for name in
        ["plain", "a \"b\"", r"back\slash", r"a\nb\x41", "new\nline\ttab", "$HOME # {} 'x' ;", "\u{1b}[1mä\u{9b}"]
    {
        check(name);
    }
}

#[test]
fn a_plan_makes_no_temporary_directory_that_is_missing() {
    let home = tempfile::tempdir().unwrap();
    let missing = home.path().join("missing");
    let manifests = Tree::valid().load().unwrap();
    let planned = ClusterFiles::preview_in(&missing, &manifests, &home.path().join("state"), &nats_server());
    let error = planned.err().unwrap();
    assert!(format!("{error:#}").contains(&format!("in the temporary directory `{}`", missing.display())), "{error:#}");
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
}

"""Packs rotations.py into rotation.zip, always the same bytes for the same text: `python3 pack.py`.

The text is stored as it is, at an offset that is a multiple of three. So Terraform's test finds its Base64 in that of the archive.
"""

import pathlib
import zipfile

here = pathlib.Path(__file__).parent
entry = zipfile.ZipInfo("rotations.py")
entry.external_attr = 0o644 << 16
with zipfile.ZipFile(here / "rotation.zip", "w") as archive:
    archive.writestr(entry, (here / "rotations.py").read_text())

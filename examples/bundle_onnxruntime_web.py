"""Build onnxruntime-web.zip: what `client export --web` puts beside a student, so that a browser can run it.

    python -m examples.bundle_onnxruntime_web --out client/serving/assets/onnxruntime-web.zip

The files come from the npm package `onnxruntime-web`, fetched with npm unless `--package` names its archive.
They are checked against `ARCHIVE_SHA256` and `FILES_SHA256`. Their licence, and the notices of what they
contain, come from the Python package `onnxruntime`, which has them. The same packages give the same bytes.
"""

import argparse
import subprocess
import tarfile
import zipfile
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory

PACKAGE = "onnxruntime-web@1.30.0"
ARCHIVE_SHA256 = "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71"
# The build for processors, of one file of JavaScript and one of WebAssembly, under names that every server of
# static files knows the type of.
FROM_NPM = {
    "ort.js": "package/dist/ort.wasm.bundle.min.mjs",
    "ort.wasm": "package/dist/ort-wasm-simd-threaded.wasm",
}
FILES_SHA256 = {
    "ort.js": "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    "ort.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
FROM_PYTHON = {"LICENSE.txt": "LICENSE", "ThirdPartyNotices.txt": "ThirdPartyNotices.txt"}
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date that a zip can hold


def read_package(archive: Path) -> dict[str, bytes]:
    """The files of the bundle, by their names in it.

    Raises:
        SystemExit: the archive is another one.
    """
    if (found := sha256(archive.read_bytes()).hexdigest()) != ARCHIVE_SHA256:
        raise SystemExit(f"{archive} is not {PACKAGE}: its SHA-256 is {found}.")
    contents = {}
    with tarfile.open(archive) as package:
        for name, path in FROM_NPM.items():
            file = package.extractfile(path)
            assert file is not None
            contents[name] = file.read()
            if sha256(contents[name]).hexdigest() != FILES_SHA256[name]:
                raise SystemExit(f"{path} of {archive} is not what FILES_SHA256 says.")
    for name, path in FROM_PYTHON.items():
        contents[name] = files("onnxruntime").joinpath(path).read_bytes()
    return contents


def write_bundle(contents: dict[str, bytes], out: Path) -> None:
    """Write the files as a zip that is the same for the same files."""
    with zipfile.ZipFile(out, "w") as bundle:
        for name in sorted(contents):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = 0o644 << 16
            bundle.writestr(entry, contents[name], zipfile.ZIP_DEFLATED, 9)


def main() -> None:
    """Fetch, check and bundle."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--package", type=Path, help="the package's archive (default: fetch it with npm)")
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        archive = arguments.package
        if archive is None:
            done = subprocess.run(
                ["npm", "pack", "--silent", PACKAGE], cwd=folder, check=True, capture_output=True, text=True
            )
            archive = Path(folder, done.stdout.strip())
        write_bundle(read_package(archive), arguments.out)


if __name__ == "__main__":
    main()

"""onnxruntime-web, which runs exported models in a browser. It comes from npm, as the one version pinned here.

A wheel has its files, since its build fetches them; elsewhere they are fetched once, into the cache. Needs the
standard library only.
"""

import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

VERSION = "1.30.0"
FILES = {
    "ort.wasm.bundle.min.mjs": "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}  # {file: its SHA-256}
FOLDER = Path(__file__).with_name("web") / "vendor"


def is_complete(folder: Path) -> bool:
    """Whether a folder has all files, undamaged."""
    return all(
        (folder / name).is_file() and hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
        for name, digest in FILES.items()
    )


def fetch(folder: Path) -> None:
    """Fetches the files with npm into a folder.

    Args:
        folder: Path. Created if it does not exist.

    Raises:
        OSError: if npm is not installed or fails.
        ValueError: if it fetches other files than the pinned ones.
    """
    package = f"onnxruntime-web@{VERSION}"
    by_hand = f"npm pack {package}, and copy {' and '.join(FILES)} from its folder dist to {folder}"
    npm = shutil.which("npm")
    if npm is None:
        raise OSError(
            f"Expected npm to be installed, which fetches {package} once. Received: no npm. Install Node.js, "
            f"or on another computer run {by_hand}."
        )
    with tempfile.TemporaryDirectory() as scratch:
        command = [npm, "pack", package, "--silent", "--pack-destination", scratch]
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", errors="replace")
        archives = list(Path(scratch).glob("*.tgz"))
        if done.returncode or not archives:
            reason = done.stderr.strip()[-300:] or "no file"
            raise OSError(f"Expected npm to fetch {package}. Received: {reason}. Try again, or run {by_hand}.")
        made = Path(scratch) / "made"
        made.mkdir()
        with tarfile.open(archives[0]) as archive:
            for name in FILES:
                with archive.extractfile(f"package/dist/{name}") as source, open(made / name, "wb") as target:
                    shutil.copyfileobj(source, target)
        if not is_complete(made):
            raise ValueError(f"Expected the files of {package} that were tried. Received: others from npm")
        shutil.copytree(made, folder, dirs_exist_ok=True)

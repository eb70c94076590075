"""Generates the Python code of the protobuf schemas.

Reads protos/postrail/v1/*.proto and owns services/postrail/wire/*_pb2.py and *_pb2.pyi: nobody edits those by hand, and the
codec beside them (postrail.wire) is all that uses them. With --check it writes nothing and fails when they differ.
"""

import argparse
import re
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
SCHEMAS = PROTOS / "postrail" / "v1"
GENERATED = ROOT / "services" / "postrail" / "wire"
IMPORT_OF_SCHEMA = re.compile(r"^from postrail\.v1 import ", re.MULTILINE)


def generate() -> dict[str, str]:
    """Compile every schema in a temporary directory.

    Returns:
        file name → text, as it belongs into `GENERATED`. Empty where there are no schemas.

    Raises:
        SystemExit: protoc rejected a schema; it has printed the place.
    """
    schemas = [str(path.relative_to(PROTOS)) for path in sorted(SCHEMAS.glob("*.proto"))]
    if not schemas:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        includes = [f"-I{PROTOS}", f"-I{files('grpc_tools') / '_proto'}"]
        status = protoc.main(["protoc", *includes, f"--python_out={folder}", f"--pyi_out={folder}", *schemas])
        if status:
            raise SystemExit(f"protos: protoc failed with status {status}; correct the schema named above")
        # protoc names modules after the schema's path; the package that holds them is postrail.wire.
        return {
            path.name: IMPORT_OF_SCHEMA.sub("from postrail.wire import ", path.read_text(encoding="utf-8"))
            for path in sorted((Path(folder) / "postrail" / "v1").iterdir())
        }


def committed() -> dict[str, str]:
    """Return the generated files in the tree: file name → text."""
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(GENERATED.glob("*_pb2.py*"))}


def main() -> int:
    """Write the generated code, or compare it; 1 where --check finds a difference."""
    parser = argparse.ArgumentParser(description="Generate services/postrail/wire/*_pb2.py from protos/.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail when the committed code differs")
    check: bool = parser.parse_args().check
    wanted, present = generate(), committed()
    stale = sorted(name for name in wanted.keys() | present.keys() if wanted.get(name) != present.get(name))
    if check:
        for name in stale:
            print(f"protos: {name} differs from its schema; run: make proto", file=sys.stderr)
        return 1 if stale else 0
    for name in stale:
        if name in wanted:
            (GENERATED / name).write_text(wanted[name], encoding="utf-8")
        else:
            (GENERATED / name).unlink()
    print(f"protos: {len(stale)} of {len(wanted)} generated files changed")
    return 0


if __name__ == "__main__":
    sys.exit(main())

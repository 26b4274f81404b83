"""Writes pados/pados_pb2.py from ../proto/pados.proto (needs protoc).

protoc's own Python output is tied to a range of protobuf releases on both sides. What is written here is only the
descriptor of the messages, handed to protobuf's public functions, so that one committed file works with every protobuf
from 4.25 on. `python generate.py --check` tells whether the committed file is what the .proto says.
"""

import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
PROTO = HERE.parent / "proto" / "pados.proto"
OUT = HERE / "pados" / "pados_pb2.py"

HEAD = '''"""The messages of pados.proto. Written by generate.py: not to be edited."""

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_FILES = descriptor_pb2.FileDescriptorSet.FromString(
'''

TAIL = ''')
_pool = descriptor_pool.DescriptorPool()
for _file in _FILES.file:
    _pool.Add(_file)
DESCRIPTOR = _pool.FindFileByName("pados.proto")
for _name, _message in DESCRIPTOR.message_types_by_name.items():
    globals()[_name] = message_factory.GetMessageClass(_message)
'''


def text():
    with tempfile.NamedTemporaryFile(suffix=".desc") as out:
        subprocess.run(["protoc", f"--proto_path={PROTO.parent}", f"--descriptor_set_out={out.name}", PROTO.name],
                       check=True)
        data = pathlib.Path(out.name).read_bytes()
    lines = [f"    {data[i:i + 48]!r}\n" for i in range(0, len(data), 48)]
    return HEAD + "".join(lines) + TAIL


if __name__ == "__main__":
    if "--check" in sys.argv[1:]:
        if OUT.read_text() != text():
            sys.exit("pados/pados_pb2.py is not what ../proto/pados.proto says: run generate.py")
    else:
        OUT.write_text(text())

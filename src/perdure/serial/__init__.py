"""Values and errors as JSON, typed by annotations: what is stored, and how it comes back as itself.

The rest of perdure asks for a `Payload` of a type, a `Signature` of a function, and the record of a failure;
how each kind of type is carried is inside. Nothing here imports a module on behalf of a row, runs an
`__init__` or lets a row choose a class: a row is data, the annotations decide.
"""

from perdure.serial.failure import decode_failure, encode_failure, import_name, record_failure
from perdure.serial.payload import DEFAULT_LIMIT, Payload, check_size
from perdure.serial.signature import Signature, receiver_of
from perdure.serial.text import Codec, check_text, storable_text

__all__ = [
    "DEFAULT_LIMIT",
    "Codec",
    "Payload",
    "Signature",
    "check_size",
    "check_text",
    "decode_failure",
    "encode_failure",
    "import_name",
    "receiver_of",
    "record_failure",
    "storable_text",
]

"""Pados from Python: arrays in, arrays out.

    import pados
    with pados.Client("tcp://127.0.0.1:7461") as client:
        client.push("products", vectors, ids=ids, attributes={"price": prices})
        found = client.search("products", ids=[42], k=5, context={"festival": "diwali"}, profile="festive")
        print(found.ids, found.scores)
        written = client.update("products", [42], {"price": [9.5]})
        found = client.search("products", ids=[42], at_least=written.sequence)
"""

from .changes import Written
from .client import MISSING, Client, PadosError, Result

__all__ = ["Client", "MISSING", "PadosError", "Result", "Written"]
__version__ = "0.1.0"

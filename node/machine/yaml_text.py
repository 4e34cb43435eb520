"""YAML texts for Lua: `payload.transcode` and whoever else needs one.

Values cross as JSON text, which the kernel reads and writes. The YAML read is the one of registry files
(`node.registry.documents`): 1.2's core schema, bounded, nothing constructed from tags.
"""

from __future__ import annotations

import json
import re
from io import StringIO
from typing import Any, Final, TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.representer import SafeRepresenter

from node.registry.documents import Unreadable, parse_yaml

Answer: TypeAlias = "tuple[bytes, None] | tuple[None, bytes]"

_LINE_MAX: Final = 1 << 30  # nothing is folded
# Texts that no reader takes for anything else; all others are quoted. The library's own choice loses U+0085 and, for
# readers of YAML 1.1, turns `yes` into a boolean.
_PLAIN: Final = re.compile(r"[A-Za-z_][\w./@-]*( [\w./@-]+)*", re.ASCII)
_MEANT: Final = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})


class _Representer(SafeRepresenter):
    pass


def _represent_text(representer: SafeRepresenter, text: str) -> ScalarNode:
    plain = _PLAIN.fullmatch(text) and text.lower() not in _MEANT
    node: ScalarNode = representer.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')
    return node


_Representer.add_representer(str, _represent_text)


def yaml_of_json(text: bytes) -> Answer:
    """Write a JSON value as YAML in block style; what is wrong as the second value."""
    writer: Any = YAML(typ="safe", pure=True)  # its options are declared as None
    writer.Representer = _Representer
    writer.default_flow_style = False
    writer.width = _LINE_MAX
    writer.allow_unicode = True
    writer.sort_base_mapping_type_on_output = False
    out = StringIO()
    try:
        writer.dump(json.loads(text), out)
    except (YAMLError, RecursionError) as error:
        return None, f"cannot be written as YAML: {error}".encode("utf-8", "replace")
    return out.getvalue().removesuffix("...\n").encode("utf-8", "surrogatepass"), None


def json_of_yaml(text: bytes) -> Answer:
    """Read one YAML document; what is wrong, with its line, as the second value."""
    try:
        value = parse_yaml(text.decode("utf-8")).value
        return json.dumps(value, ensure_ascii=False, allow_nan=False).encode(), None
    except UnicodeDecodeError:
        return None, b"the YAML text is not UTF-8"
    except (Unreadable, ValueError, RecursionError) as error:  # ValueError: .nan and .inf, which JSON lacks
        return None, str(error).encode("utf-8", "replace")

"""Record the schema of KServe's InferenceService, Kubernetes' types with it, for the tests of manifests.

    pip download --no-deps -d wheels kserve kubernetes-validate
    python tools/record_kserve_schema.py wheels/kserve-*.whl wheels/kubernetes_validate-*.whl

KServe's types are those of its Python SDK, which is generated from its OpenAPI definitions; Kubernetes' those of its
own JSON schemas (both Apache-2.0). Written to tests/reference/kserve_schema.json, without descriptions. A field that
they do not know is an error.
"""

from __future__ import annotations

import ast
import json
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

OUTPUT = Path(__file__).parents[1] / "tests" / "reference" / "kserve_schema.json"
ROOT = "V1beta1InferenceService"
KUBERNETES = "v1.37.0"
_SCALARS = {"str": "string", "int": "integer", "bool": "boolean", "float": "number", "object": None}


def kserve_types(wheel: zipfile.ZipFile) -> dict[str, dict[str, Any]]:
    """Return class name -> schema of every type of the SDK."""
    found = {}
    for file in wheel.namelist():
        if not re.fullmatch(r"kserve/models/v1\w+\.py", file):
            continue
        text = wheel.read(file).decode()
        (made,) = [node for node in ast.parse(text).body if isinstance(node, ast.ClassDef)]
        facts = {
            node.targets[0].id: ast.literal_eval(node.value)
            for node in made.body
            if isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and isinstance(node.value, ast.Dict)
        }
        names = facts["attribute_map"]
        required = set(re.findall(r"Invalid value for `(\w+)`, must not be `None`", text))
        found[made.name] = {
            "type": "object",
            "properties": {names[key]: schema_of(kind) for key, kind in facts["openapi_types"].items()},
            "required": sorted(names[key] for key in required),
            "additionalProperties": False,
        }
    return found


def schema_of(kind: str) -> dict[str, Any]:
    """Return the schema of a type as the SDK writes it, such as list[V1Container]."""
    if inner := re.fullmatch(r"list\[(.+)\]", kind):
        return {"type": "array", "items": schema_of(inner[1])}
    if inner := re.fullmatch(r"dict\(str, (.+)\)", kind):
        return {"type": "object", "additionalProperties": schema_of(inner[1])}
    if kind in _SCALARS:
        return {"type": _SCALARS[kind]} if _SCALARS[kind] else {}
    return {"$ref": f"#/$defs/{kind}"}


def kubernetes_types(wheel: zipfile.ZipFile) -> dict[str, dict[str, Any]]:
    """Return name -> schema of Kubernetes' types, those of its core by the SDK's names too (V1Container)."""
    (file,) = [name for name in wheel.namelist() if name.endswith(f"{KUBERNETES}-local-strict/_definitions.json")]
    found: dict[str, dict[str, Any]] = json.loads(wheel.read(file))["$defs"]
    for name in list(found):
        if match := re.fullmatch(r"io\.k8s\.(?:api\.core|apimachinery\.pkg\.apis\.meta)\.v1\.(\w+)", name):
            found[f"V1{match[1]}"] = {"$ref": f"#/$defs/{name}"}
    return found


def closure(types: dict[str, dict[str, Any]], root: str) -> dict[str, Any]:
    """Return the types that ``root`` leads to, without words; a name that nothing has stands for anything."""
    kept: dict[str, Any] = {}
    waiting = [root]
    while waiting:
        name = waiting.pop()
        if name not in kept:
            kept[name] = _without_words(types.get(name, {}))
            waiting += re.findall(r'"#/\$defs/([^"]+)"', json.dumps(kept[name]))
    return dict(sorted(kept.items()))


def _without_words(value: Any) -> Any:
    if isinstance(value, dict):
        words = {key for key in value if key == "description" and isinstance(value[key], str)}
        return {
            key: _without_words(item)
            for key, item in value.items()
            if key not in words and not key.startswith("x-kubernetes")
        }
    return [_without_words(item) for item in value] if isinstance(value, list) else value


def main() -> None:
    kserve, kubernetes = (Path(argument) for argument in sys.argv[1:])
    with zipfile.ZipFile(kserve) as ours, zipfile.ZipFile(kubernetes) as theirs:
        types = {**kubernetes_types(theirs), **kserve_types(ours)}
    record = {
        "recorded": f"{kserve.name}, {kubernetes.name} (Kubernetes {KUBERNETES}), by tools/record_kserve_schema.py",
        "licence": "Apache-2.0",
        "$ref": f"#/$defs/{ROOT}",
        "$defs": closure(types, ROOT),
    }
    OUTPUT.write_text(json.dumps(record, separators=(",", ":")) + "\n")
    print(f"{OUTPUT}: {len(record['$defs'])} types, {OUTPUT.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main()

"""Names of what libvirt's schema allows in an interface.

`python -m tests.unit.libvirt.schema` prints the list of the installed libvirt, as `interface-schema.txt` has it.
"""

import pathlib

from lxml import etree

RNG = "{http://relaxng.org/ns/structure/1.0}"
INSTALLED = pathlib.Path("/usr/share/libvirt/schemas/domaincommon.rng")


def schema_names(path):
    """Return the elements and attributes below `<interface>`, as `child/child@attribute`."""
    defines = {}
    _read(path, defines)
    found = set()
    for node in defines["interface"]:
        _walk(node, "", (), defines, found)
    return found


def _read(path, defines):
    root = etree.parse(path).getroot()
    for include in root.iter(f"{RNG}include"):
        _read(path.parent / include.get("href"), defines)
    for define in root.iter(f"{RNG}define"):
        defines.setdefault(define.get("name"), []).extend(define)


def _walk(node, place, seen, defines, found):
    """Add the names that a part of the schema allows below a place."""
    kind = etree.QName(node).localname if isinstance(node.tag, str) else ""
    name = node.get("name")
    if kind == "ref":
        if name not in seen:
            for part in defines.get(name, ()):
                _walk(part, place, (*seen, name), defines, found)
        return
    if kind == "attribute":
        found.add(f"{place}@{name}")
        return
    if kind == "element":
        place = "" if name == "interface" and not place else "/".join(filter(None, (place, name)))
        found |= {place} if place else set()
    for part in node:
        _walk(part, place, seen, defines, found)


if __name__ == "__main__":
    print(*sorted(schema_names(INSTALLED)), sep="\n")

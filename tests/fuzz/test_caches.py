"""With one malformed object in the caches every reconciler continues, and an unrelated VM is decided."""

import pytest
from hypothesis import given

from .bounds import within_bounds
from .junk import dump, mutations
from .scene import OBJECTS, FuzzScene
from .settings import inputs


@pytest.mark.parametrize("plural", OBJECTS)
def test_one_malformed_object_does_not_affect_the_others(plural):
    @inputs(share=len(OBJECTS))
    @given(mutations([OBJECTS[plural]]))
    def meets(document):
        raw = dump(document)
        scene = within_bounds(FuzzScene, lambda scene: scene.meet(plural, raw))
        assert scene.bystander_is_patched or plural == "vmnicpolicies"

    meets()

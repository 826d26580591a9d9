"""One bad object in the caches: every reconciler goes on, and a VM that has nothing to do with it is decided."""

import pytest
from hypothesis import given

from .bounds import within_bounds
from .junk import dump, mutations
from .scene import OBJECTS, FuzzScene
from .settings import inputs


@pytest.mark.parametrize("plural", OBJECTS)
def test_one_bad_object_costs_only_itself(plural):
    @inputs(share=len(OBJECTS))
    @given(mutations([OBJECTS[plural]]))
    def meets(document):
        raw = dump(document)
        scene = within_bounds(FuzzScene, lambda scene: scene.meet(plural, raw))
        assert scene.bystander_is_patched or plural == "vmnicpolicies"

    meets()

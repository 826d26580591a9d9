"""Number of inputs and the seed: VMNIC_FUZZ_COUNT and VMNIC_FUZZ_SEED. The header of a run says how to repeat it."""

import os
import random

from hypothesis import HealthCheck, Phase, seed, settings

COUNT = int(os.environ.get("VMNIC_FUZZ_COUNT", "2000"))
SEED = int(os.environ.get("VMNIC_FUZZ_SEED") or random.randrange(2**32))


def inputs(share=1, count=COUNT):
    """Decorate a property: so many inputs, of which it gets a share."""

    def decorate(test):
        quiet = settings(
            max_examples=max(count // share, 1),
            deadline=None,
            database=None,
            print_blob=False,
            suppress_health_check=list(HealthCheck),
            # Shrinking takes minutes for each fault; VMNIC_FUZZ_SHRINK=1 asks for it.
            phases=(Phase.generate, Phase.shrink) if os.environ.get("VMNIC_FUZZ_SHRINK") else (Phase.generate,),
        )
        return seed(SEED)(quiet(test))

    return decorate

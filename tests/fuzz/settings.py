"""Number of inputs and their seed, from VMNIC_FUZZ_COUNT and VMNIC_FUZZ_SEED.

`make test` always tries the same inputs, so that it gives the same result for the same code. `make fuzz` chooses a new seed.
"""

import functools
import os
import random

from hypothesis import HealthCheck, Phase, seed, settings

COUNT = int(os.environ.get("VMNIC_FUZZ_COUNT", "2000"))
SEED = os.environ.get("VMNIC_FUZZ_SEED", "1")
if SEED == "random":
    SEED = str(random.randrange(2**32))
# Workers start after this module was loaded, and use the same seed.
os.environ["VMNIC_FUZZ_SEED"] = SEED
REPEAT = f"VMNIC_FUZZ_SEED={SEED} VMNIC_FUZZ_COUNT={COUNT}"


def inputs(share=1):
    """Decorate a property that gets a share of the inputs, and report how to repeat a failure."""

    def decorate(test):
        quiet = settings(
            max_examples=max(COUNT // share, 1),
            deadline=None,
            database=None,
            print_blob=False,
            suppress_health_check=list(HealthCheck),
            # Shrinking takes minutes per failure, so it must be enabled by VMNIC_FUZZ_SHRINK=1.
            phases=(Phase.generate, Phase.shrink) if os.environ.get("VMNIC_FUZZ_SHRINK") else (Phase.generate,),
        )
        run = seed(int(SEED))(quiet(test))

        @functools.wraps(run)
        def repeatable(*args, **options):
            try:
                run(*args, **options)
            except BaseException as error:
                error.add_note(REPEAT)
                raise

        return repeatable

    return decorate

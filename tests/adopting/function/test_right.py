import equivcheck

TestTiled = equivcheck.suite(
    "kernel:plain",
    "kernel:tiled",
    dtypes=["float32", "bfloat16"],
    exclude=["bias", "long"],
    deviations={"autocast": "the kernel returns the dtype that it is given"},
)

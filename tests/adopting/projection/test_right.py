import equivcheck

TestFused = equivcheck.suite(
    "attention:ThreeProjections",
    "attention:OneProjection",
    transfer="auto",
    dtypes=["float32"],
    checks=["output", "gradients", "checkpoint"],
)

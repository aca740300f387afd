import equivcheck

TestFusedWrong = equivcheck.suite(
    "attention:ThreeProjections",
    "attention:OneProjectionWrong",
    transfer="auto",
    dtypes=["float32"],
    checks=["output"],
)

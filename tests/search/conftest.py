# Fixtures of the small network, shared with the tests of quantisation.
from tests.quantize.conftest import calibrated, features, network, other_speech, speech  # noqa: F401

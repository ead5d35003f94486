"""Fuzzing: pure targets for atheris and for the suite, and a mutation fuzzer over REST. Not installed with zts."""

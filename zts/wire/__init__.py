"""The wire: constants, records, codec, heads and typed values. Layer 1. See PROTOCOL.md."""

"""The wire: constants, records, codec, heads and typed values. See PROTOCOL.md."""

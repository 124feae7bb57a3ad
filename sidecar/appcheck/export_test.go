package appcheck

// ReadStatus lets a fuzz target compare the decoder of health answers with protobuf's own.
func ReadStatus(p []byte) (uint64, error) { return readStatus(p) }

package data

import "errors"

// readParquet is not part of the engine for web pages: the reader would weigh more than the engine.
func readParquet([]byte, Options) (*table, error) {
	return nil, errors.New("parquet files are not read in this build; convert to CSV or JSONL")
}

//go:build !wasip1

package temper

// Outside a host there is nobody to ask: plugins can be tested as plain Go.

func hostScore(uint32, []byte, []byte) int32                              { return -1 }
func hostImportance(uint32, string, uint32, []byte, uint32, []byte) int32 { return -1 }
func hostNearest(string, uint32, []byte) int32                            { return -1 }
func hostFill(string, uint32, uint32, uint32, []byte) int32               { return -1 }
func hostTokenize(string, []byte) int32                                   { return -1 }
func hostLog(string)                                                      {}

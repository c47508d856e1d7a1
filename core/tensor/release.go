package tensor

// Release tells the system that the pages of a mapped tensor are not needed for now, since its values have been copied elsewhere. They are
// read from the file again when they are touched, so nothing changes but the memory in use. Tensors that are not mapped are left alone.
func (t Tensor) Release() {
	if t.Mapped && len(t.Data) > 0 {
		release(t.Data)
	}
}

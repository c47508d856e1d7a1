module github.com/temper-ml/temper/plugins/examples/guided

go 1.24

require github.com/temper-ml/temper/plugins/sdk/go v0.0.0

replace github.com/temper-ml/temper/plugins/sdk/go => ../../sdk/go

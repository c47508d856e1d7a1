module github.com/temper-ml/temper/plugins/sdk/go

go 1.24

.PHONY: build tools
build:
	go build -o bin/mi-lb ./cmd/mi-lb
tools: bin/consul
bin/consul:
	cd tools && go build -o ../bin/consul github.com/hashicorp/consul

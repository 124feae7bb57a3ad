// Package policy holds the gRPC service that a policy outside the process implements, generated
// from policy.proto.
package policy

//go:generate protoc --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative policy.proto

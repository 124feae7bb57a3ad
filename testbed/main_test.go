package testbed_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/sluice-autoscaler/sluice/testbed"
)

func TestMain(m *testing.M) {
	testbed.MaybeChild()
	goleak.VerifyTestMain(m)
}

package install

import (
	"testing"

	"github.com/certfarm/certfarm/internal/host/hosttest/winetest"
)

func TestUnderWine(t *testing.T) { winetest.Run(t, "TestServiceOnWindows") }

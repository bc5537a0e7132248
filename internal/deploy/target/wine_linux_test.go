package target

import (
	"testing"

	"github.com/certfarm/certfarm/internal/host/hosttest/winetest"
)

// Not all of the contract: Wine is slow with files.
func TestUnderWine(t *testing.T) {
	winetest.Run(t, "TestLocalFilesOnWindows/(may_be_repeated|taken_over_and|first_installation|staging_cut_anywhere|two_leaves|piles_up)")
}

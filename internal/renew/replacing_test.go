package renew

import "testing"

func TestStopReplacing(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		failed, tried int
		want          bool
	}{{0, 0, false}, {1, 1, false}, {2, 2, true}, {2, 19, true}, {2, 20, false}, {3, 29, true}, {100, 1000, false}, {101, 1000, true}} {
		if got := StopReplacing(c.failed, c.tried); got != c.want {
			t.Errorf("%d of %d failed: %v", c.failed, c.tried, got)
		}
	}
}

package renew

// StopReplacing reports that a mass replacement is to stop by itself: so many rollouts of
// new certificates failed, of so many that were tried. One may be a node's own trouble;
// two, and more than a tenth, are a pattern that the rest would follow.
func StopReplacing(failed, tried int) bool { return failed >= 2 && 10*failed > tried }

package controller

import (
	"errors"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/issue"
)

// ours reports that an order failed by our own silence: nobody answered the CA's
// question, and the controller that had told it to ask is not the one that learns
// of it. What it was worth to ask is as it was, so the next order need not wait.
func (c *Controller) ours(o farm.Order, err error) bool {
	_, unanswered := errors.AsType[*issue.Unanswered](err)
	return unanswered && o.Told != "" && o.Told != c.Owner
}

package api

import (
	"context"

	"github.com/certfarm/certfarm/internal/controller"
)

func (s *server) getNotifications(ctx context.Context, in *InFarm) (controller.Notifications, error) {
	return s.Controller.Notifications(ctx, in.Farm)
}

// TestAsk names a receiver.
type TestAsk struct {
	Receiver string `json:"receiver,omitempty" doc:"empty: all of them"`
}

// Trials are what became of trying receivers.
type Trials struct {
	Trials []controller.Trial `json:"trials"`
}

type testReceiversAsk struct {
	InFarm
	Body TestAsk
}

func (s *server) testReceivers(ctx context.Context, in *testReceiversAsk) (Trials, error) {
	all, err := s.TestReceivers(ctx, in.Farm, in.Body.Receiver, by(ctx))
	return Trials{list(all)}, err
}

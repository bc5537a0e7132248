package main

import (
	"context"
	"fmt"

	"golang.org/x/sys/windows/svc"
)

// serviceName is only for the event log: the manager knows by itself which service it
// started.
const serviceName = "certfarm-agent"

// asService runs f, under the service manager if that started us.
func asService(ctx context.Context, f func(context.Context) error) error {
	is, err := svc.IsWindowsService()
	if err != nil {
		return fmt.Errorf("ask whether this is a service: %w", err)
	}
	if !is {
		return f(ctx)
	}
	s := &service{ctx: ctx, run: f}
	if err := svc.Run(serviceName, s); err != nil {
		return fmt.Errorf("run as a service: %w", err)
	}
	return s.err
}

// A service is what the service manager starts and stops.
type service struct {
	ctx context.Context
	run func(context.Context) error
	err error
}

// Execute runs until the manager says stop or what runs ends by itself; see svc.Handler.
func (s *service) Execute(_ []string, asked <-chan svc.ChangeRequest, say chan<- svc.Status) (bool, uint32) {
	const accepts = svc.AcceptStop | svc.AcceptShutdown
	say <- svc.Status{State: svc.StartPending}
	ctx, stop := context.WithCancel(s.ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- s.run(ctx) }()
	say <- svc.Status{State: svc.Running, Accepts: accepts}
	for {
		select {
		case s.err = <-ended:
			say <- svc.Status{State: svc.StopPending}
			if s.err != nil {
				return false, 1 // the manager starts it again, if it was told to
			}
			return false, 0
		case r := <-asked:
			switch r.Cmd {
			case svc.Interrogate:
				say <- r.CurrentStatus
			case svc.Stop, svc.Shutdown:
				say <- svc.Status{State: svc.StopPending}
				stop()
			}
		}
	}
}

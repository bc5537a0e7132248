package install

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/svc"
	"golang.org/x/sys/windows/svc/mgr"
)

// own is who may do anything with a folder of the agent, and with all in it: the system
// and the machine's administrators, and nothing that is inherited from above.
const own = "D:PAI(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)"

// Allowed reports whether this process may carry a plan out; see ErrNotAllowed.
func Allowed() error {
	if !windows.GetCurrentProcessToken().IsElevated() {
		return ErrNotAllowed
	}
	return nil
}

// Install is what makes the agent a service.
func Install(a Ask) (p Plan, err error) {
	for _, folder := range []string{a.State, filepath.Dir(a.Policy)} {
		p.Steps = append(p.Steps, Step{"folder " + folder + ", for SYSTEM and Administrators alone", func(context.Context) error { return guard(folder) }})
	}
	args := []string{"agent", "run", "--state", a.State, "--policy", a.Policy}
	if a.Ready != "" {
		args = append(args, "--ready", a.Ready)
	}
	p.Steps = append(p.Steps, Step{"service " + Name + ", started with the machine and again if it ends", func(context.Context) error {
		return withService(func(m *mgr.Mgr, s *mgr.Service) error { return put(m, s, a.Program, args) })
	}})
	if joined(a.State) {
		p.Steps = append(p.Steps, Step{"start service " + Name, func(ctx context.Context) error { return restart(ctx) }})
	}
	p.Rest = lacks(a, "sc.exe start "+Name)
	if _, err := os.Stat(a.Policy); err != nil {
		p.Rest = append(p.Rest, "say what may be done here: certfarm snippet policy NODE at a controller, into "+a.Policy+" on this machine")
	}
	return p, nil
}

// Uninstall is what takes the service away. The agent's key and the policy stay.
func Uninstall() (p Plan, err error) {
	err = withService(func(_ *mgr.Mgr, s *mgr.Service) error {
		if s == nil {
			return nil
		}
		p.Steps = append(p.Steps, Step{"stop service " + Name, stop}, Step{"remove service " + Name, func(context.Context) error {
			return withService(func(_ *mgr.Mgr, s *mgr.Service) error {
				if s == nil {
					return nil
				}
				return s.Delete() //nolint:wrapcheck // withService says of what
			})
		}})
		return nil
	})
	return p, err
}

// guard makes a folder that only the system and administrators may use.
func guard(folder string) error {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	d, err := windows.SecurityDescriptorFromString(own)
	if err != nil {
		return fmt.Errorf("rights of folder %s: %w", folder, err)
	}
	dacl, _, err := d.DACL()
	if err == nil {
		err = windows.SetNamedSecurityInfo(folder, windows.SE_FILE_OBJECT, windows.DACL_SECURITY_INFORMATION|windows.PROTECTED_DACL_SECURITY_INFORMATION, nil, nil, dacl, nil)
	}
	if err != nil {
		return fmt.Errorf("rights of folder %s: %w", folder, err)
	}
	return nil
}

// withService opens the service; nil: there is none.
func withService(f func(*mgr.Mgr, *mgr.Service) error) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("service %s: %w", Name, err)
		}
	}()
	m, err := mgr.Connect()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Disconnect()) }()
	s, err := m.OpenService(Name)
	if errors.Is(err, windows.ERROR_SERVICE_DOES_NOT_EXIST) {
		return f(m, nil)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return f(m, s)
}

// The service as the manager shows it.
const (
	shown       = "Certfarm agent"
	description = "Brings this machine's certificates up to date, as far as its own policy allows."
)

// put makes the service, or makes it what it should be.
func put(m *mgr.Mgr, s *mgr.Service, program string, args []string) (err error) {
	if s == nil {
		c := mgr.Config{StartType: mgr.StartAutomatic, ErrorControl: mgr.ErrorNormal, DisplayName: shown, Description: description}
		if s, err = m.CreateService(Name, program, c, args...); err != nil {
			return err //nolint:wrapcheck // withService says of what
		}
		defer func() { err = errors.Join(err, s.Close()) }()
	} else if err := update(s, append([]string{program}, args...)); err != nil {
		return err
	}
	again := mgr.RecoveryAction{Type: mgr.ServiceRestart, Delay: 5 * time.Second}
	return s.SetRecoveryActions([]mgr.RecoveryAction{again, again, again}, 86400) //nolint:wrapcheck // withService says of what
}

// update changes how the service is run, and leaves what an administrator may have
// changed: who it runs as, and what it waits for.
func update(s *mgr.Service, run []string) error {
	path, err := windows.UTF16PtrFromString(windows.ComposeCommandLine(run))
	if err != nil {
		return fmt.Errorf("its command line: %w", err)
	}
	const same = windows.SERVICE_NO_CHANGE
	return windows.ChangeServiceConfig(s.Handle, same, mgr.StartAutomatic, same, path, nil, nil, nil, nil, nil, nil) //nolint:wrapcheck // withService says of what
}

// stopTime is how long an agent may take to end what it has begun.
const stopTime = 3 * time.Minute

// stop stops the service, if it runs, and waits until it has stopped.
func stop(ctx context.Context) error {
	return withService(func(_ *mgr.Mgr, s *mgr.Service) error { return stopped(ctx, s) })
}

// restart starts the service; one that runs ends first, so that it runs as it was told.
func restart(ctx context.Context) error {
	return withService(func(_ *mgr.Mgr, s *mgr.Service) error {
		if s == nil {
			return windows.ERROR_SERVICE_DOES_NOT_EXIST
		}
		if err := stopped(ctx, s); err != nil {
			return err
		}
		return s.Start() //nolint:wrapcheck // withService says of what
	})
}

// stopped stops a service, if there is one, and waits: its state can only be asked for.
func stopped(ctx context.Context, s *mgr.Service) error {
	if s == nil {
		return nil
	}
	if _, err := s.Control(svc.Stop); err != nil && !errors.Is(err, windows.ERROR_SERVICE_NOT_ACTIVE) {
		return err //nolint:wrapcheck // withService says of what
	}
	ctx, cancel := context.WithTimeout(ctx, stopTime)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		status, err := s.Query()
		if err != nil || status.State == svc.Stopped {
			return err //nolint:wrapcheck // withService says of what
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("it does not stop: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

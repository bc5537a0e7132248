package lab

import (
	"context"
	"fmt"
)

// webd is the command of that name, in nginx's words.
func (w *web) webd(ctx context.Context, args []string, out stdio) int {
	verb := ""
	if len(args) == 2 {
		verb = args[1]
	}
	var err error
	switch verb {
	case "-t":
		if err = w.check(ctx); err == nil {
			_, _ = fmt.Fprintln(out, "webd: configuration file /etc/webd.conf test is successful")
			return 0
		}
		_, _ = fmt.Fprintf(out, "webd: [emerg] %v\nwebd: configuration file /etc/webd.conf test failed\n", err)
		return 1
	case "start":
		err = w.start(ctx)
	case "reload":
		err = w.reload(ctx)
	case "stop":
		err = w.stop(ctx)
	default:
		_, _ = fmt.Fprintln(out, "usage: webd -t | start | reload | stop")
		return statusUsage
	}
	if err != nil {
		_, _ = fmt.Fprintf(out, "webd: [emerg] %v\n", err)
		return 1
	}
	return 0
}

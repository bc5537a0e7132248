package api

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/certfarm/certfarm/internal/access"
)

// A Route is one question or order, and the permission that it needs.
type Route struct {
	ID      string // the OpenAPI operation
	Method  string
	Path    string
	Needs   access.Permission
	Object  access.Object // whose tags decide; where it names lists, the answer is filtered
	Fresh   bool          // in a browser: only within ten minutes of a login
	Tag     string
	Summary string
	Body    int64  // the most bytes that may be sent; 0: maxBody
	Status  string // it begins long work: the path of what shows how far that is; see LinkHeader
	Once    bool   // its answer holds what is shown once: it is not kept for those who ask again

	bind func(*server, huma.API, huma.Operation)
}

// The most that may be sent: a secret or a word, and a whole farm.yaml.
const (
	maxBody = 1 << 20
	maxFarm = 32 << 20
)

const inFarm = "/v1/farms/{farm}"

// Routes is every route there is.
func Routes() []Route {
	return slices.Concat(farmRoutes(), siteRoutes(), placeRoutes(), rolloutRoutes(), exportRoutes(), accessRoutes())
}

func farmRoutes() []Route {
	return []Route{
		{ID: "about", Method: "GET", Path: "/v1/about", Needs: View, Object: Any, Tag: "farms", Summary: "What answers here", bind: answer((*server).about)},
		{ID: "rekey", Method: "POST", Path: "/v1/rekey", Needs: Secrets, Object: Installation, Tag: "secrets", Summary: "Make a new master key and seal everything under it", bind: answer((*server).rekey)},
		{ID: "agents-ca", Method: "GET", Path: "/v1/agents/ca", Needs: View, Object: Installation, Tag: "nodes", Summary: "Tell of the CA of all agents, and of the one that follows it", bind: answer((*server).agentsCA)},
		{ID: "roll-over-agents", Method: "POST", Path: "/v1/agents/ca/rollover", Needs: Secrets, Object: Installation, Status: "/v1/agents/ca", Tag: "secrets", Summary: "Have another CA follow that of the agents", bind: answer((*server).rollOverAgents)},
		{ID: "list-farms", Method: "GET", Path: "/v1/farms", Needs: View, Object: Any, Tag: "farms", Summary: "List the farms", bind: answer((*server).listFarms)},
		{ID: "get-farm", Method: "GET", Path: inFarm, Needs: View, Object: Farm, Tag: "farms", Summary: "Get farm.yaml as it was written", bind: answerTagged((*server).getFarm)},
		{ID: "plan", Method: "POST", Path: inFarm + "/plan", Needs: View, Object: Farm, Tag: "farms", Summary: "Say what a farm.yaml would change", Body: maxFarm, bind: answer((*server).plan)},
		{ID: "apply", Method: "POST", Path: inFarm + "/apply", Needs: Edit, Object: Farm, Status: showsSites, Tag: "farms", Summary: "Make a farm.yaml the farm's next revision", Body: maxFarm, bind: answerTagged((*server).apply)},
		{ID: "freeze", Method: "PUT", Path: inFarm + "/freeze", Needs: Operate, Object: Farm, Tag: "farms", Summary: "Stop all activations, or let them go on", bind: order((*server).freeze)},
		{ID: "doctor", Method: "POST", Path: inFarm + "/doctor", Needs: Operate, Object: Farm, Tag: "farms", Summary: "Look at the controllers and the database, and ask every node and CA", bind: answer((*server).doctor)},

		{ID: "get-notifications", Method: "GET", Path: inFarm + "/notifications", Needs: View, Object: Farm, Tag: "notifications", Summary: "Tell who is told, how they hear, and of what", bind: answer((*server).getNotifications)},
		{ID: "test-receivers", Method: "POST", Path: inFarm + "/notifications/test", Needs: Operate, Object: Farm, Tag: "notifications", Summary: "Send a message to a receiver, or to all, and wait for what becomes of it", bind: answer((*server).testReceivers)},

		{ID: "forecast", Method: "GET", Path: inFarm + "/forecast", Needs: View, Object: Farm, Tag: "farms", Summary: "Play the next days forward against the limits of the CAs", bind: answer((*server).forecast)},

		{ID: "list-replacements", Method: "GET", Path: inFarm + "/replacements", Needs: View, Object: Farm, Tag: "sites", Summary: "Tell how far mass replacements are", bind: answer((*server).listReplacements)},
		{ID: "plan-replacement", Method: "POST", Path: inFarm + "/replacements/plan", Needs: View, Object: Farm, Tag: "sites", Summary: "Say what a mass replacement would take", bind: answer((*server).planReplacement)},
		{ID: "replace", Method: "POST", Path: inFarm + "/replacements", Needs: Operate, Object: Farm, Status: showsReplacements, Tag: "sites", Summary: "Replace many certificates within the limits of their CAs", bind: answer((*server).replace)},
		{ID: "get-replacement", Method: "GET", Path: inFarm + "/replacements/{replacement}", Needs: View, Object: Farm, Tag: "sites", Summary: "Tell how far a mass replacement is", bind: answer((*server).getReplacement)},
		{ID: "pause-replacement", Method: "POST", Path: inFarm + "/replacements/{replacement}/pause", Needs: Operate, Object: Farm, Status: showsReplacement, Tag: "sites", Summary: "Order nothing more of a mass replacement for now", bind: order((*server).pauseReplacement)},
		{ID: "resume-replacement", Method: "POST", Path: inFarm + "/replacements/{replacement}/resume", Needs: Operate, Object: Farm, Status: showsReplacement, Tag: "sites", Summary: "Have a mass replacement go on", bind: order((*server).resumeReplacement)},
		{ID: "cancel-replacement", Method: "DELETE", Path: inFarm + "/replacements/{replacement}", Needs: Operate, Object: Farm, Tag: "sites", Summary: "End a mass replacement; what is not ordered yet stays", bind: order((*server).cancelReplacement)},
	}
}

func siteRoutes() []Route {
	return []Route{
		{ID: "list-sites", Method: "GET", Path: inFarm + "/sites", Needs: View, Object: OfSites, Tag: "sites", Summary: "List sites by name", bind: answer((*server).listSites)},
		{ID: "get-site", Method: "GET", Path: inFarm + "/sites/{site}", Needs: View, Object: Site, Tag: "sites", Summary: "Tell everything about a site", bind: answer((*server).getSite)},
		{ID: "renew", Method: "POST", Path: inFarm + "/sites/{site}/renew", Needs: Operate, Object: Site, Status: showsProgress, Tag: "sites", Summary: "Order a new certificate now", bind: order((*server).renew)},
		{ID: "verify", Method: "POST", Path: inFarm + "/sites/{site}/verify", Needs: Operate, Object: Site, Tag: "sites", Summary: "Ask every endpoint now what it serves", bind: answer((*server).verify)},
		{ID: "preflight", Method: "POST", Path: inFarm + "/sites/{site}/preflight", Needs: Operate, Object: Site, Tag: "sites", Summary: "Ask now what the CA would ask", bind: answer((*server).preflight)},
		{ID: "snippet", Method: "GET", Path: inFarm + "/sites/{site}/snippet", Needs: View, Object: Site, Tag: "sites", Summary: "Write the rule by which a server helps to answer challenges", bind: answer((*server).snippet)},
		{ID: "records", Method: "GET", Path: inFarm + "/sites/{site}/records", Needs: View, Object: Site, Tag: "sites", Summary: "Write the DNS records by which names are proven and pinned", bind: answer((*server).records)},
		{ID: "undo", Method: "POST", Path: inFarm + "/sites/{site}/undo", Needs: Operate, Object: Site, Status: showsProgress, Tag: "sites", Summary: "Bring a version back: the one before, or a named one", bind: order((*server).undo)},
		{ID: "revoke", Method: "POST", Path: inFarm + "/sites/{site}/revoke", Needs: Secrets, Object: Site, Status: showsProgress, Tag: "sites", Summary: "Have a certificate revoked that no endpoint serves any more", bind: answer((*server).revoke)},
		{ID: "compromise", Method: "POST", Path: inFarm + "/sites/{site}/compromise", Needs: Secrets, Object: Site, Status: showsProgress, Tag: "sites", Summary: "Leave a key that others know: a new one everywhere, the old one revoked and erased", bind: answer((*server).compromise)},
		{ID: "import", Method: "POST", Path: inFarm + "/sites/{site}/import", Needs: Edit, Object: Site, Status: showsProgress, Tag: "sites", Summary: "Roll out a certificate from elsewhere", bind: answer((*server).importPair)},
		{ID: "progress", Method: "GET", Path: inFarm + "/progress", Needs: View, Object: OfSites, Tag: "sites", Summary: "Tell what sites are busy with", bind: answer((*server).progress)},

		{ID: "compromise-account", Method: "POST", Path: inFarm + "/issuers/{issuer}/compromise", Needs: Secrets, Object: Farm, Status: showsSites, Tag: "secrets", Summary: "Leave an account's key that others know", bind: answer((*server).compromiseAccount)},
		{ID: "compromise-node", Method: "POST", Path: inFarm + "/nodes/{node}/compromise", Needs: Secrets, Object: WholeNode, Status: showsSites, Tag: "nodes", Summary: "Leave every key that lay on a node that others have been on", bind: answer((*server).compromiseNode)},
		{ID: "roll-over", Method: "POST", Path: inFarm + "/issuers/{issuer}/rollover", Needs: Secrets, Object: Farm, Tag: "secrets", Summary: "Give the account at an issuer a new key", bind: answer((*server).rollOver)},
	}
}

func placeRoutes() []Route {
	return []Route{
		{ID: "list-targets", Method: "GET", Path: inFarm + "/targets", Needs: View, Object: OfSites, Tag: "targets", Summary: "List targets by name", bind: answer((*server).listTargets)},
		{ID: "get-target", Method: "GET", Path: inFarm + "/targets/{target}", Needs: View, Object: Target, Tag: "targets", Summary: "Tell everything about a target", bind: answer((*server).getTarget)},
		{ID: "audit", Method: "POST", Path: inFarm + "/targets/{target}/audit", Needs: Operate, Object: Target, Tag: "targets", Summary: "Look now through the whole place of a target", bind: answer((*server).audit)},
		{ID: "test-target", Method: "POST", Path: inFarm + "/targets/{target}/test", Needs: Operate, Object: Target, Tag: "targets", Summary: "Try a target with a throw-away certificate beside what is live", bind: answer((*server).testTarget)},
		{ID: "restore-target", Method: "POST", Path: inFarm + "/targets/{target}/restore", Needs: Operate, Object: Target, Status: showsTarget, Tag: "targets", Summary: "Bring a target back to what it should hold", bind: order((*server).restore)},
		{ID: "retire", Method: "DELETE", Path: inFarm + "/targets/{target}", Needs: Edit, Object: Target, Tag: "targets", Summary: "Forget a target that is gone from farm.yaml", bind: order((*server).retire)},

		{ID: "list-nodes", Method: "GET", Path: inFarm + "/nodes", Needs: View, Object: OfSites, Tag: "nodes", Summary: "List nodes by name", bind: answer((*server).listNodes)},
		{ID: "get-node", Method: "GET", Path: inFarm + "/nodes/{node}", Needs: View, Object: Node, Tag: "nodes", Summary: "Tell of one node", bind: answer((*server).getNode)},
		{ID: "sudoers", Method: "GET", Path: inFarm + "/nodes/{node}/sudoers", Needs: View, Object: WholeNode, Tag: "nodes", Summary: "Write the sudoers rule that a node needs", bind: answer((*server).sudoers)},
		{ID: "node-policy", Method: "GET", Path: inFarm + "/nodes/{node}/policy", Needs: View, Object: WholeNode, Tag: "nodes", Summary: "Write the policy that a node needs which decides for itself", bind: answer((*server).nodePolicy)},
		{ID: "node-receiver", Method: "GET", Path: inFarm + "/nodes/{node}/receiver", Needs: View, Object: WholeNode, Tag: "nodes", Summary: "Write the line of authorized_keys for a node's receiver", bind: answer((*server).nodeReceiver)},
		{ID: "adopt", Method: "POST", Path: inFarm + "/nodes/{node}/adopt", Needs: Edit, Object: WholeNode, Tag: "nodes", Summary: "Find the certificate files that a node's servers use, and write the lines for them", bind: answer((*server).adopt)},
		{ID: "hold", Method: "PUT", Path: inFarm + "/nodes/{node}/hold", Needs: Operate, Object: WholeNode, Tag: "nodes", Summary: "Keep changes away from a node, or release it", bind: order((*server).hold)},
		{ID: "ban", Method: "PUT", Path: inFarm + "/nodes/{node}/ban", Needs: Operate, Object: WholeNode, Tag: "nodes", Summary: "Turn away the agent of a node, or let it in again", bind: order((*server).banAgent)},
		{ID: "agent-token", Method: "POST", Path: inFarm + "/agents/tokens", Needs: Secrets, Object: Farm, Tag: "nodes", Summary: "Let agents join with a token whose digest is sent", bind: answer((*server).newAgentToken)},
	}
}

func rolloutRoutes() []Route {
	return []Route{
		{ID: "list-rollouts", Method: "GET", Path: inFarm + "/rollouts", Needs: View, Object: OfSites, Tag: "rollouts", Summary: "List rollouts, newest first", bind: answer((*server).listRollouts)},
		{ID: "get-rollout", Method: "GET", Path: inFarm + "/rollouts/{rollout}", Needs: View, Object: Rollout, Tag: "rollouts", Summary: "Tell of a rollout, by id or as a site's newest", bind: answer((*server).getRollout)},
		{ID: "pause", Method: "POST", Path: inFarm + "/rollouts/{rollout}/pause", Needs: Operate, Object: Rollout, Status: showsRollout, Tag: "rollouts", Summary: "Begin nothing more", bind: answer((*server).pause)},
		{ID: "resume", Method: "POST", Path: inFarm + "/rollouts/{rollout}/resume", Needs: Operate, Object: Rollout, Status: showsRollout, Tag: "rollouts", Summary: "Go on", bind: answer((*server).resume)},
		{ID: "abort", Method: "POST", Path: inFarm + "/rollouts/{rollout}/abort", Needs: Operate, Object: Rollout, Status: showsRollout, Tag: "rollouts", Summary: "Put every target back", bind: answer((*server).abort)},
		{ID: "approve", Method: "POST", Path: inFarm + "/rollouts/{rollout}/approve", Needs: Approve, Object: Rollout, Status: showsRollout, Tag: "rollouts", Summary: "Let a wave begin", bind: answer((*server).approve)},

		{ID: "list-events", Method: "GET", Path: inFarm + "/events", Needs: View, Object: OfSites, Tag: "events", Summary: "Read the journal", bind: answer((*server).listEvents)},
		{ID: "follow-events", Method: "GET", Path: inFarm + "/events/follow", Needs: View, Object: OfSites, Tag: "events", Summary: "Follow the journal (server-sent events)", bind: follow},
	}
}

func accessRoutes() []Route {
	return []Route{
		{ID: "list-secrets", Method: "GET", Path: inFarm + "/secrets", Needs: View, Object: Farm, Tag: "secrets", Summary: "List the names of secrets", bind: answer((*server).listSecrets)},
		{ID: "set-secret", Method: "PUT", Path: inFarm + "/secrets/{secret}", Needs: Secrets, Object: Farm, Tag: "secrets", Summary: "Seal a secret under a name", bind: order((*server).setSecret)},
		{ID: "remove-secret", Method: "DELETE", Path: inFarm + "/secrets/{secret}", Needs: Secrets, Object: Farm, Tag: "secrets", Summary: "Forget a secret", bind: order((*server).removeSecret)},

		{ID: "list-audit", Method: "GET", Path: "/v1/audit", Needs: Access, Object: Installation, Tag: "access", Summary: "List who did what", bind: answer((*server).listAudit)},
		{ID: "verify-audit", Method: "GET", Path: "/v1/audit/proof", Needs: Access, Object: Installation, Tag: "access", Summary: "Prove that no line of the audit was changed", bind: answer((*server).verifyAudit)},
		{ID: "list-tokens", Method: "GET", Path: "/v1/tokens", Needs: Access, Object: Installation, Tag: "access", Summary: "List the API tokens", bind: answer((*server).listTokens)},
		{ID: "create-token", Method: "POST", Path: "/v1/tokens", Needs: Access, Object: Installation, Fresh: true, Once: true, Tag: "access", Summary: "Make an API token; it is shown once", bind: answer((*server).createToken)},
		{ID: "revoke-token", Method: "DELETE", Path: "/v1/tokens/{token}", Needs: Access, Object: Installation, Tag: "access", Summary: "Forget an API token: it opens nothing any more", bind: order((*server).revokeToken)},
		{ID: "list-sessions", Method: "GET", Path: "/v1/sessions", Needs: Access, Object: Installation, Tag: "access", Summary: "List the browsers that are logged in", bind: answer((*server).listSessions)},
		{ID: "end-session", Method: "DELETE", Path: "/v1/sessions/{session}", Needs: Access, Object: Installation, Tag: "access", Summary: "Log a browser out", bind: order((*server).endSession)},
		{ID: "metrics", Method: "GET", Path: MetricsPath, Needs: Metrics, Object: Installation, Tag: "events", Summary: "Tell Prometheus how all farms are and what this controller did", bind: metrics},
		{ID: "whoami", Method: "GET", Path: "/v1/whoami", Needs: View, Object: Any, Tag: "access", Summary: "Say who asks, and what they may do", bind: answer((*server).whoami)},
	}
}

// URL is the route's path with what the words in braces stand for, in order;
// words that are too many are left out.
func (r Route) URL(words ...string) string {
	var b strings.Builder
	rest := r.Path
	for _, w := range words {
		before, after, more := strings.Cut(rest, "{")
		if !more {
			break
		}
		b.WriteString(before + url.PathEscape(w))
		_, rest, _ = strings.Cut(after, "}")
	}
	return b.String() + rest
}

// body is an answer.
type body[T any] struct{ Body T }

// answer binds a question to its route.
func answer[I, O any](f func(*server, context.Context, *I) (O, error)) func(*server, huma.API, huma.Operation) {
	return func(s *server, a huma.API, op huma.Operation) {
		huma.Register(a, op, func(ctx context.Context, in *I) (*body[O], error) {
			out, err := f(s, ctx, in)
			if err != nil {
				return nil, s.problemOf(ctx, op.OperationID, err)
			}
			s.tell(ctx, op)
			return &body[O]{out}, nil
		})
	}
}

// tagged is an answer with its ETag; with status 304 it has no body.
type tagged[T any] struct {
	Status int
	ETag   string `header:"ETag"`
	Body   T
}

// answerTagged binds a question to its route whose answer has an ETag.
func answerTagged[I, O any](f func(*server, context.Context, *I) (*tagged[O], error)) func(*server, huma.API, huma.Operation) {
	return func(s *server, a huma.API, op huma.Operation) {
		huma.Register(a, op, func(ctx context.Context, in *I) (*tagged[O], error) {
			out, err := f(s, ctx, in)
			if err != nil {
				return nil, s.problemOf(ctx, op.OperationID, err)
			}
			s.tell(ctx, op)
			return out, nil
		})
	}
}

// order binds an order to its route; it is answered with 204.
func order[I any](f func(*server, context.Context, *I) error) func(*server, huma.API, huma.Operation) {
	return func(s *server, a huma.API, op huma.Operation) {
		op.DefaultStatus = http.StatusNoContent
		huma.Register(a, op, func(ctx context.Context, in *I) (*struct{}, error) {
			if err := f(s, ctx, in); err != nil {
				return nil, s.problemOf(ctx, op.OperationID, err)
			}
			s.tell(ctx, op)
			return nil, nil
		})
	}
}

// tell logs who asked for more than to see.
func (s *server) tell(ctx context.Context, op huma.Operation) {
	if op.Extensions[needs] != string(View) {
		s.log.Info("request", "route", op.OperationID, "by", by(ctx))
	}
}

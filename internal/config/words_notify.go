package config

type notifications struct {
	located
	URL       string              `yaml:"url" doc:"URL of the dashboard, for links in messages. Default: no links."`
	Wait      *duration           `yaml:"wait" doc:"How long more of the same is waited for before people are told: many events of one cause are one message. Default: 30s."`
	Again     *duration           `yaml:"again" doc:"Least time between two messages of one notice, unless it becomes more severe or is over. Default: 5m."`
	Receivers map[string]receiver `yaml:"receivers" doc:"Who can be told, by name."`
	Routes    []route             `yaml:"routes" doc:"What goes to whom; everyone whom a route names is told. Default: tickets and pages go to every receiver."`
	Ping      *ping               `yaml:"ping" doc:"A sign of life to a service outside, which tells people when it stays away."`
}

type receiver struct {
	located
	Kind    string            `yaml:"kind" doc:"mail, slack, teams, pagerduty, webhook or shoutrrr; 'certfarm notify kinds' tells what each needs. Default: the receiver's name."`
	Options options           `yaml:"options" doc:"What the kind needs to know."`
	Secrets map[string]secret `yaml:"secrets" doc:"The kind's settings that are secret: URLs with a token in them, passwords, keys."`
}

type route struct {
	located
	To       list   `yaml:"to" jsonschema:"required" doc:"Names of receivers."`
	Severity string `yaml:"severity" jsonschema:"enum=info,enum=ticket,enum=page" doc:"The least severity that goes there. info: good to know; ticket: look at it in the day; page: someone must look now. Default: ticket."`
	Sites    list   `yaml:"sites" doc:"Only what concerns these sites. Default: everything."`
	Tags     list   `yaml:"tags" doc:"Only what concerns sites with one of these tags. Default: everything."`
	Events   list   `yaml:"events" doc:"Only these kinds of events, or their first words: rollout, order.failed. Default: every kind."`
	Quiet    list   `yaml:"quiet" doc:"When only pages go out, written as a policy's window: '22:00-07:00 Europe/Copenhagen'. What was held back and is still so follows when it ends. Default: never."`
}

type ping struct {
	located
	URL          secret    `yaml:"url" jsonschema:"required" doc:"The URL that is called; it is a secret, since who knows it can call it, too."`
	Every        *duration `yaml:"every" doc:"How often, 30s to 1d. Default: 5m."`
	AllowPrivate list      `yaml:"allow_private" doc:"Networks that the URL may lie in although they are not public: 10.1.2.0/24. Default: none."`
}

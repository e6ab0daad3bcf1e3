// Socket.IO clients by name, in Node or in a page: what they are told to do, and what they see.
//
// Commands:
//
//   {"connect": NAME, "url", "version": 4 | 2, "options": {...}, "listen": {...}}
//   {"emit": NAME, "args": [...], "call": ANYTHING}     acknowledged: {"client": NAME, "call", "answer"}
//   {"disconnect": NAME}
//   {"pause": NAME}, {"resume": NAME}                   reads nothing from its WebSocket for a while (in Node)
//
// `listen` is what a client sends when it connects, each time with the id of the last event that it has seen, or from which
// it listens.

/** `ios` has the library for each version; `say` takes what is seen, one object at a time. */
export function driver(ios, say) {
  const sockets = {};

  function connect({ connect: client, url, version, options, listen }) {
    let last;
    const asked = () => ({ ...listen, ...(last && { last_event_id: last }) });
    const two = version === 2;
    // Clients of version 2 have a query; several topics are JSON in it.
    const query = () => {
      const { topics, ...rest } = asked();
      return topics ? { ...rest, topics: JSON.stringify(topics) } : rest;
    };
    const own = listen && (two ? { query: query() } : { auth: (tell) => tell(asked()) });
    const socket = ios[version](url, { forceNew: true, reconnectionDelay: 50, reconnectionDelayMax: 200, timeout: 60_000, ...options, ...own });
    const manager = socket.io;
    if (two && listen) socket.on("reconnect_attempt", () => (manager.opts.query = query()));
    socket.on("connect", () => {
      const { engine } = manager;
      engine.on("upgrade", ({ name }) => say({ client, upgraded: name }));
      say({ client, connected: engine.transport.name });
    });
    socket.on("connect_error", (error) => say({ client, failed: error.message }));
    socket.on("error", (error) => say({ client, failed: error.message ?? error }));
    socket.on("disconnect", (reason) => say({ client, lost: reason }));
    socket.on("subscribed", ({ cursor }) => (last = cursor));
    socket.on("event", (event, sub) => {
      last = event.id;
      say({ client, event, sub });
    });
    socket.on("gap", (gap, sub) => say({ client, gap, sub }));
    socket.on("closed", (closed, sub) => say({ client, closed, sub }));
    sockets[client] = socket;
  }

  const tcp = (client) => sockets[client].io.engine.transport.ws._socket;

  return (command) => {
    if (command.connect) connect(command);
    else if (command.emit) {
      const { emit: client, args, call } = command;
      sockets[client].emit(...args, (...answers) => say({ client, call, answer: answers.length === 1 ? answers[0] : { answers } }));
    } else if (command.disconnect) sockets[command.disconnect].close();
    else if (command.pause) tcp(command.pause).pause();
    else if (command.resume) tcp(command.resume).resume();
  };
}

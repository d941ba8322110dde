// A durable consumer as a user would write it (docs/consuming.md): it goes on where it stopped, whatever it died of.
// usage: node durable.js NATS_URL NAME FILTER MAX; stops after MAX messages (0: at the end of what is there). Prints one
// JSON object.
const { connect, AckPolicy, DeliverPolicy } = require('nats');

(async () => {
  const [url, name, filter, max] = process.argv.slice(2);
  const nc = await connect({ servers: url });
  const jsm = await nc.jetstreamManager();
  // Made once; a second call with the same settings changes nothing.
  await jsm.consumers.add('ARANCINI_UPDATES', {
    durable_name: name,
    filter_subject: filter,
    ack_policy: AckPolicy.Explicit,
    deliver_policy: DeliverPolicy.All,
    max_ack_pending: 1,  // a message at a time: what is not acked comes again before anything newer
  });
  const consumer = await nc.jetstream().consumers.get('ARANCINI_UPDATES', name);
  const out = { messages: 0, updates: 0, first: 0, last: 0 };
  let left = (await consumer.info()).num_pending + (await consumer.info()).num_ack_pending;
  while (left > 0 && (Number(max) === 0 || out.messages < Number(max))) {
    const m = await consumer.next({ expires: 5000 });
    if (m === null) break;
    // … decode m.data by m.headers.get('Arancini-Format') and apply it; then, and only then:
    await m.ackAck();
    out.messages += 1;
    out.updates += Number(m.headers.get('Arancini-Count'));
    out.first = out.first || m.seq;
    out.last = m.seq;
    left -= 1;
  }
  console.log(JSON.stringify(out));
  await nc.close();
})().catch((e) => { console.error(e); process.exit(1); });

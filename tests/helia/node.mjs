// A Helia for tests: it listens on loopback, knows nobody, and does what the lines on its standard input say, answering each
// with a line of JSON.
//
//   add PATH          imports a directory: {"cid"}
//   connect ADDRESS   {}
//   get CID PATH      writes what is at a CID: {}

// Node.js has it from version 22 on, and Helia takes it for granted.
Promise.withResolvers ??= () => {
  const all = {}
  all.promise = new Promise((resolve, reject) => Object.assign(all, { resolve, reject }))
  return all
}

const { createWriteStream } = await import('node:fs')
const { mkdir } = await import('node:fs/promises')
const { join } = await import('node:path')
const { createInterface } = await import('node:readline')
const { pipeline } = await import('node:stream/promises')
const { createLibp2p } = await import('libp2p')
const { tcp } = await import('@libp2p/tcp')
const { noise } = await import('@chainsafe/libp2p-noise')
const { yamux } = await import('@chainsafe/libp2p-yamux')
const { identify } = await import('@libp2p/identify')
const { multiaddr } = await import('@multiformats/multiaddr')
const { Helia } = await import('@helia/utils')
const { bitswap } = await import('@helia/block-brokers')
const { globSource, unixfs } = await import('@helia/unixfs')
const { CID } = await import('multiformats/cid')
const { MemoryBlockstore } = await import('blockstore-core')
const { MemoryDatastore } = await import('datastore-core')

const datastore = new MemoryDatastore()
const blockstore = new MemoryBlockstore()
const libp2p = await createLibp2p({
  datastore,
  addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
  transports: [tcp()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  services: { identify: identify() }
})
// A want whose message was not sent in time is never sent again: a machine that stands still for seconds is given minutes.
const helia = new Helia({ libp2p, datastore, blockstore, blockBrokers: [bitswap({ messageSendTimeout: 120_000 })], routers: [], components: {} })
await helia.start()
const files = unixfs(helia)

const add = async path => {
  let root
  // Directories of more than a kilobyte are sharded.
  const options = { wrapWithDirectory: true, shardSplitThresholdBytes: 1024 }
  for await (const entry of files.addAll(globSource(path, '**/*'), options)) {
    root = entry.cid
  }
  return { cid: String(root) }
}

// What comes to be wanted while bitswap greets a new peer is never sent to it: nothing may be wanted before it has. Bitswap
// asked to be told of peers before this does, and is told first.
const connect = async address => {
  const greeted = Promise.withResolvers()
  const told = await libp2p.register('/ipfs/bitswap/1.2.0', { onConnect: () => greeted.resolve() })
  await libp2p.dial(multiaddr(address))
  await greeted.promise
  libp2p.unregister(told)
  return {}
}

const get = async (cid, path) => {
  const stat = await files.stat(cid)
  if (stat.type !== 'directory') {
    await pipeline(files.cat(cid), createWriteStream(path))
    return {}
  }
  await mkdir(path)
  for await (const entry of files.ls(cid)) {
    await get(entry.cid, join(path, entry.name))
  }
  return {}
}

const verbs = {
  add,
  connect,
  get: async (cid, path) => await get(CID.parse(cid), path)
}

const say = value => process.stdout.write(JSON.stringify(value) + '\n')
say({ addresses: libp2p.getMultiaddrs().map(String) })
for await (const line of createInterface({ input: process.stdin })) {
  const [verb, ...words] = line.split(' ')
  try {
    say(await verbs[verb](...words))
  } catch (error) {
    say({ error: String(error?.stack ?? error) })
  }
}
process.exit(0)

// One customer's story over @segment/analytics-node: `segment_node.js HOST KEY PREFIX` prints what it was told.
const {Analytics} = require('@segment/analytics-node')

const [host, key, prefix] = process.argv.slice(2)
const errors = []
let called = 0
const told = (error) => {
  called += 1
  if (error) errors.push(String(error.reason ?? error))
}
const analytics = new Analytics({writeKey: key, host, flushInterval: 100, flushAt: 20, maxRetries: 10})
analytics.on('error', (error) => errors.push(String(error.reason ?? error)))
const userId = `${prefix}-user`
const anonymousId = `${prefix}-visitor`
analytics.track({anonymousId, event: 'Product Viewed', messageId: `${prefix}-view`}, told)
analytics.identify({userId, anonymousId, traits: {plan: 'pro'}, messageId: `${prefix}-identify`}, told)
analytics.track(
  {userId, event: 'Order Completed', properties: {revenue: 49.9}, messageId: `${prefix}-order`}, told)
analytics.page({userId, name: 'Prices', messageId: `${prefix}-page`}, told)
analytics.screen({userId, name: 'Prices', messageId: `${prefix}-screen`}, told)
analytics.group({userId, groupId: 'acme', traits: {employees: 80}, messageId: `${prefix}-group`}, told)
analytics.alias({userId, previousId: `${prefix}-before`, messageId: `${prefix}-alias`}, told)
analytics.closeAndFlush({timeout: 60000}).then(() => process.stdout.write(JSON.stringify({errors, called})))

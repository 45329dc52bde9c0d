// The same event in two modes over the npm package cloudevents: `cloudevents_node.js HOST KEY PREFIX`.
const {CloudEvent, HTTP} = require('cloudevents')
const http = require('node:http')

const [host, key, prefix] = process.argv.slice(2)
const event = new CloudEvent({
  id: `${prefix}-event`,
  source: '/shop/orders',
  type: 'Order Completed',
  subject: `${prefix} Zoë "x" 50%`,
  channel: 'web',
  data: {revenue: 49.9},
})
const send = (message) =>
  new Promise((resolve, reject) => {
    const headers = {...message.headers, Authorization: `Bearer ${key}`}
    const request = http.request(`${host}/v1/events`, {method: 'POST', headers}, (answer) => {
      answer.resume()
      answer.on('end', () => resolve(answer.statusCode))
    })
    request.on('error', reject)
    request.write(message.body)  // without a length, so that it goes in chunks, as its own transport does
    request.end()
  })
Promise.all([send(HTTP.binary(event)), send(HTTP.structured(event))]).then((statuses) =>
  process.stdout.write(JSON.stringify({statuses})))

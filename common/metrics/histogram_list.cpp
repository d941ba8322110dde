#include "common/metrics/histogram_list.h"

#include "common/metrics/metric_list.h"

namespace arancini {
namespace {

constexpr double kPerNs = 1e-9;
constexpr double kPerMs = 1e-3;

constexpr std::array kIngest{
    HistogramInfo{
        "arancini_ingest_receive_to_ring_seconds", &bounds_of(IngestHistogram::ReceiveToRing), kPerNs,
        "From the arrival of data in the event loop until what it made is in the ring; one for each "
        "round in which data came."},
    HistogramInfo{
        "arancini_ingest_bmp_lag_seconds", &bounds_of(IngestHistogram::BmpLag), kPerMs,
        "Time of receipt less the router's time in the per-peer header, for each message with one. A "
        "table that is told anew has the age of its routes."},
};
constexpr std::array kPublish{
    HistogramInfo{"arancini_publish_ring_to_ack_seconds", &bounds_of(PublishHistogram::RingToAck), kPerNs,
                  "From reading the first record of a message in the ring until the message is stored."},
    HistogramInfo{"arancini_publish_ack_seconds", &bounds_of(PublishHistogram::AckLatency), kPerNs,
                  "From sending a message until it is stored (acked, or durable in the journal)."},
};
static_assert(kIngest.size() == static_cast<std::size_t>(IngestHistogram::Count));
static_assert(kPublish.size() == static_cast<std::size_t>(PublishHistogram::Count));
static_assert(static_cast<std::size_t>(IngestMetric::Count) <= kFirstHistogramValue &&
              static_cast<std::size_t>(PublishMetric::Count) <= kFirstHistogramValue);

}  // namespace

std::span<const HistogramInfo> ingest_histograms() {
  return kIngest;
}
std::span<const HistogramInfo> publish_histograms() {
  return kPublish;
}

}  // namespace arancini

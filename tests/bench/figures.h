#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <string_view>
#include <vector>

// What every benchmark takes and gives, so that tools/bench can run them all and make one table.
namespace arancini::bench {

struct CommonOptions {
  std::string json;
  bool quick = false;
  unsigned repeat = 3;
};
void add_common_options(CLI::App& app, CommonOptions& options);

// Measured values by key ("ring.records_per_s"); of several under one key the median counts.
class Figures {
 public:
  void add(std::string_view key, double value);
  // 0 if nothing was added.
  [[nodiscard]] double median(std::string_view key) const;
  // "median (least to greatest)" of values divided by `unit`; the median alone if there is just one value.
  [[nodiscard]] std::string text(std::string_view key, int digits, double unit = 1) const;
  // One flat JSON object: key, key.min, key.max. Does nothing without a file name; throws if it cannot be
  // written.
  void write_json(const std::string& file) const;

 private:
  struct Figure {
    std::string key;
    std::vector<double> sorted;
  };
  [[nodiscard]] const Figure* find(std::string_view key) const;

  std::vector<Figure> figures_;  // in the order of their first values
};

}  // namespace arancini::bench

#include "tests/bench/figures.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <stdexcept>

namespace arancini::bench {

namespace {

double median_of(const std::vector<double>& sorted) {
  const std::size_t half = sorted.size() / 2;
  return sorted.size() % 2 == 1 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

}  // namespace

void add_common_options(CLI::App& app, CommonOptions& options) {
  app.add_option("--json", options.json, "write medians, .min and .max here: one flat object");
  app.add_flag("--quick", options.quick, "a small load, once: shows that it works, measures little");
  app.add_option("--repeat", options.repeat, "runs; medians and spread are printed")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
}

void Figures::add(std::string_view key, double value) {
  std::vector<double>& all = values_[std::string(key)];
  all.insert(std::upper_bound(all.begin(), all.end(), value), value);
}

double Figures::median(std::string_view key) const {
  const auto found = values_.find(key);
  return found == values_.end() ? 0 : median_of(found->second);
}

std::string Figures::text(std::string_view key, int digits, double unit) const {
  const auto found = values_.find(key);
  if (found == values_.end()) return "-";
  const std::vector<double>& all = found->second;
  if (all.size() == 1) return fmt::format("{:.{}f}", all[0] / unit, digits);
  return fmt::format("{:.{}f} ({:.{}f} to {:.{}f})", median_of(all) / unit, digits, all.front() / unit,
                     digits, all.back() / unit, digits);
}

void Figures::write_json(const std::string& file) const {
  if (file.empty()) return;
  std::ofstream out(file);
  const char* separator = "{\n";
  for (const auto& [key, all] : values_) {
    out << separator
        << fmt::format(R"(  "{0}": {1:.9g}, "{0}.min": {2:.9g}, "{0}.max": {3:.9g})", key, median_of(all),
                       all.front(), all.back());
    separator = ",\n";
  }
  out << (values_.empty() ? "{}\n" : "\n}\n");
  out.close();
  if (!out) throw std::runtime_error(file + ": cannot be written");
}

}  // namespace arancini::bench

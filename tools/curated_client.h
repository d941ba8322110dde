#pragma once

#include <control.grpc.pb.h>

#include <chrono>
#include <functional>
#include <string>

#include "tools/aranctl.h"

// Calls of curated's API; for the files that see gRPC.
namespace arancini::tools {

inline constexpr std::chrono::seconds kCuratedPatience{5};

using CuratedCall = std::function<grpc::Status(control::v1::Control::Stub&, grpc::ClientContext&)>;
// Makes one call. The exit code, and where it is not 0 why: what to tell the operator.
int try_curated(const GlobalOptions& options, std::chrono::seconds patience, const CuratedCall& call,
                std::string& why);
// The same. False if there is no answer: the exit code is set, one line on stderr says why and what to
// do.
bool call_curated(const GlobalOptions& options, int& exit_code, std::chrono::seconds patience,
                  const CuratedCall& call);

// False, without a word, where nobody answers.
bool status_of_curated(const GlobalOptions& options, control::v1::Status& status);

template <class Request, class Response>
bool ask_curated(const GlobalOptions& options, int& exit_code, const Request& request, Response& response,
                 grpc::Status (control::v1::Control::Stub::*call)(grpc::ClientContext*, const Request&,
                                                                  Response*),
                 std::chrono::seconds patience = kCuratedPatience) {
  return call_curated(options, exit_code, patience,
                      [&](control::v1::Control::Stub& stub, grpc::ClientContext& context) {
                        return (stub.*call)(&context, request, &response);
                      });
}

}  // namespace arancini::tools
